"""Moving: volumes go from one place to another without a repository: to another name, or to another engine."""
