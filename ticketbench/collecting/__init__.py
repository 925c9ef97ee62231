"""The rooms of collect.py: how Prometheus is asked, what series and histograms are made of its answers, and names."""
