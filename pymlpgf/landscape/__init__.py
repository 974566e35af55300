"""Fixed points and the landscape around them."""
