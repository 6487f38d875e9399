"""What `./dev bench mp` measures: the same programs under each start method."""
