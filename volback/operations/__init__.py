"""Operations: one file per use case; combines the packages below and returns frozen results; prints nothing."""
