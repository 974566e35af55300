# Variable projection with geodesic acceleration on a QR decomposition: for perfect fits of more parameters than are
# needed.

"""
    VariableProjection()

Levenberg and Marquardt's method for nets with a linear output layer and the loss "mse" without regularisers. The
output weights are not damped and take their best values for the hidden weights after each step (Golub & Pereyra, SIAM
J. Numer. Anal. 10 (1973) 413). Under a [`Constraint`](@ref) these are the coordinates that move nothing but output
weights; one that moves others, too, is damped as they are. The step is corrected by the second derivative of the
residuals along it (geodesic acceleration: Transtrum & Sethna, arXiv 1201.5885), which also decides on the damping: too
long a step is seen before the loss is asked. Steps come from the QR decomposition of the Jacobian, since where a fit is
perfect and has more parameters than it needs the singular values of the Jacobian fall below the square root of the
rounding error, where its normal equations know nothing any more.

Memory: N×P numbers for each output, beside two P×P matrices, with P the number of coordinates.
"""
struct VariableProjection <: MinimizeMethod end
method_name(::VariableProjection) = "VariableProjection"

Base.@kwdef mutable struct ProjectionState{T<:AbstractFloat}
    x::Vector{T}
    gradient::Vector{T}
    loss::T
    gnorm::T
    trial::Vector{T} = zero(x)
    trial_gradient::Vector{T} = zero(x)
    jacobian::TallQR{T}                 # a block of rows for each block of samples and output
    rotated::Vector{T} = zero(x)        # Qᵀρ
    damped::TallQR{T}                   # R with the damping's rows below
    step::Vector{T} = zero(x)
    bend::Vector{T} = zero(x)           # half the second derivative of the path
    linear::Vector{Bool}                # the residuals are linear in these coordinates for given others
    output::TallQR{T}                   # of what is linear, which is the same for all outputs but under a constraint:
    moments::Matrix{T}                  # one block of samples and one for the damping
    wide::Matrix{T}                     # a block of the Jacobian by all parameters, under a constraint
    residual::Vector{T}
    zeros::Vector{T}
    root::Vector{T}
    damping::T = FIRST_DAMPING
    modelled::Bool = false
    rejections::Int = 0
    stalled::Int = 0
end

"Numbers in the Jacobian; more than these are not kept."
const JACOBIAN_NUMBERS = 25_000_000
jacobian_fits(net::AbstractNet) = n_samples(net) * n_outputs(net) <= div(JACOBIAN_NUMBERS, n_params(net))

residuals_known(r::ConstrainedNet) = r.net isa Net && residuals_known(r.net)

"Which coordinates move nothing but parameters of the output layer."
linear_coordinates(net::Net) = [i > last(net.layers).offset for i in 1:net.n_params]
function linear_coordinates(r::ConstrainedNet)
    C, offset = r.constraint, last(innermost(r).layers).offset
    return [all(i -> C.rows[i] > offset, column(C, j)) for j in 1:n_coordinates(C)]
end
"How many of them a least-squares problem has, and how many problems there are."
function linear_problem(net::Net, linear)
    l = last(net.layers)
    return l.fan_in + l.bias, l.width
end
linear_problem(::ConstrainedNet, linear) = count(linear), 1

function make_state(::VariableProjection, objective::Objective{T}, x0::Vector{T}) where {T}
    residuals_known(objective.net) ||
        throw(ArgumentError("VariableProjection needs an ordinary net with a linear output layer, the loss \"mse\" " *
                            "and no regulariser: choose another optim_solver."))
    jacobian_fits(objective.net) ||
        throw(ArgumentError("VariableProjection keeps the Jacobian, $(n_samples(objective.net)) × " *
                            "$(n_outputs(objective.net)) × $(length(x0)) numbers, and takes at most " *
                            "$JACOBIAN_NUMBERS: choose another optim_solver."))
    net, P, linear = innermost(objective.net)::Net{T}, length(x0), linear_coordinates(objective.net)
    rows = [b.n for b in net.blocks for _ in 1:n_outputs(net)]
    (q, problems), n = linear_problem(objective.net, linear), maximum(rows)
    return ProjectionState{T}(; first_point(objective, x0)..., jacobian=TallQR{T}(P, rows), damped=TallQR{T}(P, (P,)),
                              linear=linear, output=TallQR{T}(q, (n, q)), moments=zeros(T, q, problems),
                              wide=objective.net isa Net ? zeros(T, 0, 0) : zeros(T, n, net.n_params),
                              residual=zeros(T, n), zeros=zeros(T, max(P, n)), root=zeros(T, n))
end

const FIRST_DAMPING = 1e-3
const DAMPING_UP = 2.0
const DAMPING_DOWN = 0.2
const LARGEST_BEND = 0.75           # of second to first derivative, as Transtrum & Sethna advise
const PROJECTION_REJECTIONS = 40
const PROJECTION_STALLED = 30       # the damping falls by DAMPING_DOWN meanwhile, from whatever it was
const STALLING = 0.01               # a smaller part of the loss is no progress where the next step should halve it

function step!(state::ProjectionState{T}, objective::Objective{T}, ::VariableProjection) where {T}
    state.modelled || model!(state, objective) || return Stop.diverged
    trial_loss = T(NaN)
    if damped_step!(state, objective)
        for i in eachindex(state.trial)
            state.trial[i] = state.x[i] + state.step[i] + state.bend[i]
        end
        if solve_outputs!(state, objective, state.trial)
            trial_loss = evaluate!(state.trial_gradient, objective, state.trial)
        end
    end
    trial_gnorm = supnorm(state.trial_gradient)
    if !lower(trial_loss, trial_gnorm, state.loss)
        state.damping *= T(DAMPING_UP)
        state.rejections += 1
        return state.rejections >= PROJECTION_REJECTIONS ? Stop.roundoff : Stop.running
    end
    state.damping *= T(DAMPING_DOWN)
    state.stalled = state.loss - trial_loss < T(STALLING) * state.loss ? state.stalled + 1 : 0
    state.rejections = 0
    accepted!(state, state, trial_loss, trial_gnorm)
    state.modelled = false
    return state.stalled >= PROJECTION_STALLED ? Stop.roundoff : Stop.running
end

"QR decomposition of the Jacobian at `x`, and Qᵀρ; false where numbers are not finite."
function model!(state::ProjectionState{T}, objective::Objective{T}) where {T}
    net, q = innermost(objective.net)::Net{T}, state.jacobian
    ws, θ = net.crew.workers[1].workspace, full(objective.net, state.x)::Vector{T}
    objective.nhev += 1
    fill!(q.R, 0)
    fill!(state.rotated, 0)
    b = 0
    for block in net.blocks
        heartbeat(net.monitor)
        forward!(ws, net, θ, block, 1)
        residual_weights!(state.root, net, block)
        for o in 1:n_outputs(net)
            b += 1
            rows_of_jacobian!(q.blocks[b], state, objective.net, ws, θ, block, o)
            take_in!(q, b)
            reflect!(state.rotated, residual!(state.residual, ws, block, state.root, o), q, b)
        end
    end
    return state.modelled = all_finite(q.R)
end

"A block of the Jacobian, by the parameters or by the coordinates of a constraint."
rows_of_jacobian!(J::Matrix{T}, state::ProjectionState{T}, net::Net{T}, ws, θ, block, o) where {T} =
    residual_jacobian!(J, ws, net, θ, block, state.root, o)
function rows_of_jacobian!(J::Matrix{T}, state::ProjectionState{T}, r::ConstrainedNet{T}, ws, θ, block, o) where {T}
    C, wide = r.constraint, residual_jacobian!(state.wide, ws, innermost(r)::Net{T}, θ, block, state.root, o)
    fill!(J, 0)
    @inbounds for j in axes(J, 2), k in column(C, j)
        value, row = C.values[k], C.rows[k]
        @simd for i in axes(J, 1)
            J[i, j] = muladd(value, wide[i, row], J[i, j])
        end
    end
    return J
end

"The step and its bend for the present damping; false where the path bends too much for it."
function damped_step!(state::ProjectionState{T}, objective::Objective{T}) where {T}
    q, linear = state.damped, state.linear
    copyto!(q.R, state.jacobian.R)
    rows = q.blocks[1]
    fill!(rows, 0)
    least = max(10 * eps(T) * largest_pivot(state.jacobian), output_damping(state))
    for i in 1:size(rows, 1)
        rows[i, i] = linear[i] ? least : max(sqrt(state.damping), least)
    end
    take_in!(q, 1)
    solve_damped!(state.step, state, state.rotated, -one(T))
    second_residuals!(state.bend, state, objective)
    solve_damped!(state.bend, state, state.bend, -one(T) / 2)
    bend, length = zero(T), zero(T)
    for i in eachindex(linear)
        linear[i] && continue
        bend += abs2(state.bend[i])
        length += abs2(state.step[i])
    end
    return 2 * sqrt(bend) <= T(LARGEST_BEND) * sqrt(length)
end

const OUTPUT_GROWTH = 0.3

"""
Square root of the damping of the output weights: with residuals ρ no step is longer than ‖ρ‖ over twice this root, so
that no weight grows by more than `OUTPUT_GROWTH` of the largest one. It vanishes with the residuals. Without it pairs
of weights grow along directions that the data hardly see, until their cancellation takes the digits that are to be
gained.
"""
function output_damping(state::ProjectionState{T}) where {T}
    largest = one(T)
    for i in eachindex(state.x)
        state.linear[i] && (largest = max(largest, abs(state.x[i])))
    end
    return sqrt(2 * state.loss) / (2 * T(OUTPUT_GROWTH) * largest)
end

"`s ← factor · R̃⁻¹ Q̃ᵀ [z; 0]`"
function solve_damped!(s::Vector{T}, state::ProjectionState{T}, z::Vector{T}, factor::T) where {T}
    for i in eachindex(s)
        s[i] = factor * z[i]
    end
    reflect!(s, fill!(state.zeros, 0), state.damped, 1)
    return back_substitute!(s, state.damped)
end

"`z ← Qᵀ d²ρ(x + t step)/dt²`"
function second_residuals!(z::Vector{T}, state::ProjectionState{T}, objective::Objective{T}) where {T}
    net, e = innermost(objective.net)::Net{T}, state.residual
    ws, v = net.crew.workers[1].workspace, moved(objective.net, state.step)
    θ = full(objective.net, state.x)::Vector{T}
    objective.nfev += 1
    fill!(z, 0)
    b = 0
    for block in net.blocks
        heartbeat(net.monitor)
        second = second_derivative!(ws, net, θ, v, block)
        residual_weights!(state.root, net, block)
        for o in 1:n_outputs(net)
            b += 1
            @inbounds @simd for r in 1:block.n
                e[r] = state.root[r] * second[r, o]
            end
            reflect!(z, e, state.jacobian, b)
        end
    end
    return z
end

"The change of the parameters with that of the coordinates."
moved(::Net, v) = v
moved(r::ConstrainedNet, v) = image!(r.v, r.constraint, v)

"The best output weights for the hidden weights in `x`, by linear least squares; false where numbers are not finite."
function solve_outputs!(state::ProjectionState{T}, objective::Objective{T}, x::Vector{T}) where {T}
    q, M = state.output, state.moments
    isempty(M) && return true
    net = innermost(objective.net)::Net{T}
    ws, θ = net.crew.workers[1].workspace, full(objective.net, x)::Vector{T}
    objective.nfev += 1
    fill!(q.R, 0)
    fill!(M, 0)
    for block in net.blocks
        heartbeat(net.monitor)
        forward!(ws, net, θ, block, 0)
        residual_weights!(state.root, net, block)
        take_in_outputs!(state, objective.net, ws, block)
    end
    all_finite(q.R) || return false
    # Units that are copies of each other leave R singular.
    least, rows = max(eps(T) * largest_pivot(q), output_damping(state)), q.blocks[2]
    fill!(rows, 0)
    for j in 1:size(rows, 1)
        rows[j, j] = least
    end
    take_in!(q, 2)
    for o in 1:size(M, 2)
        z = view(M, :, o)
        back_substitute!(reflect!(z, fill!(state.zeros, 0), q, 2), q)
    end
    subtract_outputs!(x, M, objective.net, state.linear)
    return true
end

"Take a block of samples into the least-squares problem: of each output's weights, which have all one matrix."
function take_in_outputs!(state::ProjectionState{T}, net::Net{T}, ws, block::Block{T}) where {T}
    q, M, e = state.output, state.moments, state.residual
    Z, A, n = q.blocks[1], layer_input(ws, block, length(net.layers)), block.n
    n == size(Z, 1) || fill!(Z, 0)
    @inbounds for j in 1:size(Z, 2), r in 1:n
        Z[r, j] = net.output_factor * state.root[r] * A[r, j]
    end
    take_in!(q, 1)
    for o in 1:size(M, 2)
        n == length(e) || fill!(e, 0)
        reflect!(view(M, :, o), residual!(e, ws, block, state.root, o), q, 1)
    end
    return nothing
end
"The same of the coordinates that a constraint leaves, which may belong to several outputs."
function take_in_outputs!(state::ProjectionState{T}, r::ConstrainedNet{T}, ws, block::Block{T}) where {T}
    q, M, e, C, net = state.output, state.moments, state.residual, r.constraint, innermost(r)::Net{T}
    Z, A, n, l = q.blocks[1], layer_input(ws, block, length(net.layers)), block.n, last(net.layers)
    for o in 1:l.width
        fill!(Z, 0)
        place = 0
        @inbounds for j in eachindex(state.linear)
            state.linear[j] || continue
            place += 1
            for k in column(C, j)
                of, i = output_weight(l, C.rows[k])
                of == o || continue
                value = net.output_factor * C.values[k]
                for s in 1:n
                    Z[s, place] = muladd(value * state.root[s], A[s, i], Z[s, place])
                end
            end
        end
        take_in!(q, 1)
        n == length(e) || fill!(e, 0)
        reflect!(view(M, :, 1), residual!(e, ws, block, state.root, o), q, 1)
    end
    return nothing
end
"The output to which a parameter of the last layer belongs, and its place among those of the output; the bias is last."
function output_weight(l::Layer, i::Int)
    i > bias_offset(l) && return i - bias_offset(l), l.fan_in + 1
    o, k = divrem(i - l.offset - 1, l.fan_in)
    return o + 1, k + 1
end

function subtract_outputs!(θ::Vector{T}, M::Matrix{T}, net::Net{T}, linear) where {T}
    l, k = last(net.layers), last(net.layers).fan_in
    for o in 1:l.width
        for j in 1:k
            θ[l.offset+(o-1)*k+j] -= M[j, o]
        end
        l.bias && (θ[bias_offset(l)+o] -= M[k+1, o])
    end
    return θ
end
function subtract_outputs!(z::Vector{T}, M::Matrix{T}, ::ConstrainedNet{T}, linear) where {T}
    place = 0
    for j in eachindex(linear)
        linear[j] && (z[j] -= M[place+=1, 1])
    end
    return z
end

register!(MINIMIZE_METHODS, "VariableProjection", VariableProjection(),
          "the Gauss–Newton method with the best output weights at each step, for perfect fits"; matrices=2,
          when="losses near zero with more parameters than needed: a linear output layer, mse, no regulariser; keeps " *
               "the Jacobian, too, of at most $(div(JACOBIAN_NUMBERS, 10^6)) million numbers")
