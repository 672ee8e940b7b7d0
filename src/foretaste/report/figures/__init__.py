"""The figures of the report, as plotly JSON; every number in one stands in a table as well."""
