"""A disk that loses power or fails, for the processes of tests: layer.c is preloaded, the rest reads its log."""
