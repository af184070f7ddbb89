"""Cleaning: text repair, quality filters, near duplicates, and the count of what each rule did."""
