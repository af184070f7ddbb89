"""What a run did and will do: records, tables, plots, pages."""
