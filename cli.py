from kdna_convert.cli.app import main

main()
