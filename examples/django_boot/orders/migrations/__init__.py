"""Of the orders."""
