from kdna_convert.cli import main

main()
