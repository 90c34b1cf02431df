"""OAuth 2.0 grants, a file each, over one HTTP client and one token endpoint."""
