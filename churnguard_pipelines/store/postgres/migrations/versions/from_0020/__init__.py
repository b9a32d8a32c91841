"""One file per migration; its name begins with its revision, a four-digit number."""
