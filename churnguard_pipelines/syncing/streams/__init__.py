"""How streams are read: lanes of messages, the sessions that follow them, and what people do with them."""
