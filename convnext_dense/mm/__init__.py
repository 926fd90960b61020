"""Everything between this package and the OpenMMLab stack: what is installed, changes to it, operators."""
