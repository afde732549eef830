"""A domain: what libvirt says in XML of a guest, how its memory is made of that, and what edits it."""
