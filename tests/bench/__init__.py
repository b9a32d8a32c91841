"""`make bench`: ratios against a reference in the same run; both sides printed, nothing promised in seconds."""
