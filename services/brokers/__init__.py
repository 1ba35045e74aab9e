"""How a broker is connected to, whoever reads from it or writes to it, and what its refusals mean in words."""
