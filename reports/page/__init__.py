"""The page of the HTML report: what it says of a target, as plain values, and the templates that say it."""
