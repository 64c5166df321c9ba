# Keep a copy of a folder without its git history: keep.sh FOLDER WHERE NUMBER
mkdir "$2/$3" && cd "$1" && find . -mindepth 1 -maxdepth 1 ! -name .git -exec cp -a -t "$2/$3" {} +
