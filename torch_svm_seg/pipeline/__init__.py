"""Runs over a data set that write a folder and can be continued."""
