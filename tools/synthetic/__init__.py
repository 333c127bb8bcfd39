"""Data with known truth.

demo_data             photo-like photos with exact masks
settings              folders made by settings: finished, begun, or other ones
demo_shapes           their objects, outlines and backgrounds
detection_data        photos with several objects, in VOC's or COCO's layout
detection_photos      their pixels and exact masks
segmentations         masks as COCO stores them: polygons, run lengths
background_challenge  folders of photos with other backgrounds, for the background gap
corruptions           corrupted copies of photos, laid out like ImageNet-C
only_foreground       copies of photos without their background, such as Only-FG ImageNet-A
copies                changed copies of photos: whole or absent, recorded
"""
