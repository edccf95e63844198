"""Helm: charts from registries and repositories, and the program that deploys them."""
