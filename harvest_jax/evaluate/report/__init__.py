"""`harvest results`: tables of results, with intervals from the ranks of the queries."""
