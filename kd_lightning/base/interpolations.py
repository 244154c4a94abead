"""Names of the ways to interpolate, when nets and data resize images. They are torchvision's."""

# nearest-exact is that of PIL; torch's own "nearest" differs from it by up to a pixel
INTERPOLATIONS = ("nearest-exact", "bilinear", "bicubic")
# What "nearest" means for a net: in earlier records, and in the files of timm, which resizes by PIL
OF_NETS = {"nearest": "nearest-exact"}
