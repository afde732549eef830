"""ramshelf under OpenStack Nova: what its scheduler and its compute service take from outside."""
