"""The kernel's side: requests in, replies out. Errno is chosen here and nowhere else; nothing is stored here."""
