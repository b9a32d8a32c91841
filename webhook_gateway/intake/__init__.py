"""Where providers deliver: public, port 8080."""
