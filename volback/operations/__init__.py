"""Operations: one file a use case; joins the rooms below and returns frozen results; prints nothing."""
