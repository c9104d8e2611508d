# COSTATE_MPI=AUTO|ON|OFF: runs by several processes (docs/scaling.md), a plugin that the program loads when mpirun or srun has
# started it. AUTO builds it where MPI is found, unless sanitizers are asked for; ON stops where it is not.
set(COSTATE_MPI "AUTO" CACHE STRING "Runs by several processes under MPI: AUTO, ON or OFF")
set_property(CACHE COSTATE_MPI PROPERTY STRINGS AUTO ON OFF)
if(NOT COSTATE_MPI MATCHES "^(AUTO|ON|OFF)$")
  message(FATAL_ERROR "COSTATE_MPI is '${COSTATE_MPI}'; expected AUTO, ON or OFF")
endif()
if(COSTATE_MPI STREQUAL "ON" OR (COSTATE_MPI STREQUAL "AUTO" AND NOT COSTATE_SANITIZE))
  set(MPI_CXX_SKIP_MPICXX ON)  # C's interface
  find_package(MPI COMPONENTS CXX QUIET)
  if(MPI_CXX_FOUND)
    add_library(costate_mpi MODULE ${PROJECT_SOURCE_DIR}/cli/mpi/plugin.cpp)
    target_compile_features(costate_mpi PRIVATE cxx_std_20)
    target_include_directories(costate_mpi PRIVATE ${PROJECT_SOURCE_DIR}/cli)
    target_link_libraries(costate_mpi PRIVATE MPI::MPI_CXX)
    costate_flags(costate_mpi)
    # Beside the programs of the build tree: the folder that a plugin is looked for in.
    set_target_properties(costate_mpi PROPERTIES LIBRARY_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/lib
                          CXX_VISIBILITY_PRESET hidden VISIBILITY_INLINES_HIDDEN ON)
    if(COSTATE_INSTALL)
      install(TARGETS costate_mpi LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT program)
    endif()
  elseif(COSTATE_MPI STREQUAL "ON")
    message(FATAL_ERROR "COSTATE_MPI=ON: MPI was not found (MPI_CXX_COMPILER names mpicxx)")
  endif()
endif()
