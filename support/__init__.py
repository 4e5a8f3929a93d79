"""What the paper does not have: the files of a run, its report and page, the archive."""
