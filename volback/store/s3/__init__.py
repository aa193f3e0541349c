"""S3: objects in a bucket. The AWS SDK is imported in client.py alone, and only when a store is opened."""
