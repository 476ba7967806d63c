"""A discrete-event simulator that runs the gateway's own policy code, and the policies it is compared with."""
