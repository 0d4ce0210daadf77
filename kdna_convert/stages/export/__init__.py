"""Write a converted network in the format of another program."""
