"""What runs over a data set and writes a folder that can be continued."""
