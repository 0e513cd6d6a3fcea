"""The HTTP gateway: jobs over HTTP, for senders in any language. Needs the extra `gateway`."""
