"""What libvirt calls around every guest.

This uses the standard library only, and no libvirt connection.

Which calls matter (libvirt's hooks.html; virHookCall, qemuProcessStartHook):

- ``start begin``: the guest's directory is there, QEMU is not. The guest is reserved or refused.
- ``started begin``: QEMU runs. What it opened is verified, and reserved where it is not yet.
  libvirt waits for this, and ends the guest if it is refused, only where QEMU has named files that
  were not known before.
- ``migrate begin``: a guest comes from another host, and gets this host's policy
  (core/migration/arrival.py).
- ``prepare begin`` is answered for probes only (core/hook/call.py), which are never to start.

At ``release end`` the script itself (core/hook/script.py) removes the guest's note.

Restoring a guest and taking in a migration come through the same calls; the XML of a guest that is
restored is left as it is, and so is everything else. Memory that is plugged in later calls no hook:
a guest is admitted by its maxMemory, and what it may still be given stays promised to it
(core/store/capacity.py).
"""
