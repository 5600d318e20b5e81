"""What the HTML pages of the package share: their style, and how their templates are read."""
