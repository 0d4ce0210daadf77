"""What a user passes in: MODEL, DATA and RECIPE. The only room that imports timm's and torchvision's builders."""
