"""Games whose play makes demonstration data: Atari through its emulator, and a picture that pans."""
