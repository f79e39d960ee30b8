"""Retention: what is removed by an explicit rule, by its age alone, and what no rule may remove."""
