"""Does a network keep the rules of the Open Capacity API? Behavioural cases, and fuzzing against its description."""
