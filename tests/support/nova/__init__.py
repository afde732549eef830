"""Real Nova on this machine: its own services and API, the real Placement, the real libvirt driver.

``cloud`` is where to begin. Nova runs from a virtual environment of its own (``make test-nova``),
as a process of its own (``process``) that serves everything at one port: Nova's API, Placement, and
what stands in for Glance and Neutron (``stubs``), which Nova asks for images and for networks.
There is no Keystone. The tests speak to it as any client does (``client``).
"""
