"""Bridge to a running official Lyra 2.0 inference server: messages, HTTP client, generator."""
