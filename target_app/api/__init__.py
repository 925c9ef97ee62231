"""The JSON interface for buyers, and the document that describes it together with the sale's own."""
