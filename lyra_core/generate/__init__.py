"""Generators and the loop that drives them."""
