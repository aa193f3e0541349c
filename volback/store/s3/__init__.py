"""S3: objects in a bucket. boto3 is imported in client.py alone, and only when a store is opened."""
