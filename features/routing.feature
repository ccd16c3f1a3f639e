Feature: A job reaches only a worker that offers what it needs
  Nobody is chosen "almost". Who cannot run a job never gets it, and what nobody can run is refused at once.

  @T3 @T2
  Scenario: A GPU job reaches only a GPU worker
    Given a controller with a CPU worker and a GPU worker
    When a job asks for a GPU
    Then the GPU worker gets the job and is told to use its GPU
    And the CPU worker gets nothing

  @T3 @T2
  Scenario: A job that asks for nothing leaves the GPU free
    Given a controller with a CPU worker and a GPU worker
    When a job asks for no accelerator
    Then the CPU worker gets the job

  @T3 @T2
  Scenario: A GPU of another model is not almost right
    Given a controller with a CPU worker and a GPU worker
    When a job asks for a GPU of a model that nobody has
    Then it is refused as "unsatisfied-capability" for "constraints.gpu_model"
    And nobody gets a job, and none is stored

  @T2 @F1
  Scenario: A capability that nobody offers chooses nobody
    Given a controller with a CPU worker and a GPU worker
    When a job asks for a capability that nobody advertises
    Then it is refused as "unsatisfied-capability" for "capability"
    And nobody gets a job, and none is stored
