"""The daemon that keeps the store, the guests and what is reported in agreement.

It also tells how things are. There is one process on a host. It remembers nothing that matters:
what it knows it has seen, and sees again after it was restarted. Each turn of its loop looks,
decides (core) and does what is missing; what libvirt tells by itself only makes it look sooner.

Beside it there is the listener, a process without privileges that serves its metrics.
"""
