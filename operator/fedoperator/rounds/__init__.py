"""What happens next: `decide` and the rules it follows. Values in, values out; nothing is done."""
