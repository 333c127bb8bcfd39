"""Photos to shards: what is run once per data set.

masks          mask store, by one of `detectors`
tiles          tiled backgrounds of a mask store
shards         the training stream
labelled       the same of labelled photos without masks: CIFAR, lists, class folders
subsets        lists of 1 % and 10 % of the photos
inspect        statistics, checks and contact sheets of stores and shards

command        the command line of those that write
places         where they write and read: folders, or prefixes of an object store
photos         reading and decoding of photos
mask_images    mask images read as saliency
damage         damage inside JPEGs that decoders forgive
shard_photos   what becomes of a photo when it is packed
shard_plan     which photo goes into which shard
packing        shards in the making, and what is finished of them
cifar          CIFAR's pickles
lists          lists of photos, read strictly
classes        classes of photos, by folder or by list
report         the report and the summary of a tool's run
detectors      saliency maps of photos, one file a detector
inspect_sheet  contact sheets of masks, tiles and samples
"""
