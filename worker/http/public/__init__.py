"""What is served without a token: probes, preflights of browsers, errors for clients that look for OAuth."""
